//! Bodies of answers: a document, or bytes as they come from the backup storage.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};

/// The bytes broke off: what is left of the connection is cut, so that no short body looks whole.
#[derive(Debug, thiserror::Error)]
#[error("the backup storage could not be read on")]
pub(super) struct CutOff;

/// A body with a known length.
pub(super) enum Reply {
    Nothing,
    Document(Bytes),
    Flow { bytes: BoxStream<'static, Result<Bytes, CutOff>>, left: u64 },
}

impl From<Bytes> for Reply {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Reply::Nothing } else { Reply::Document(bytes) }
    }
}

impl Reply {
    pub(super) fn len(&self) -> u64 {
        match self {
            Reply::Nothing => 0,
            Reply::Document(bytes) => bytes.len() as u64,
            Reply::Flow { left, .. } => *left,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        match this {
            Reply::Nothing => Poll::Ready(None),
            Reply::Document(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Reply::Nothing;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Reply::Flow { bytes, left } => bytes.poll_next_unpin(cx).map(|next| {
                next.map(|frame| {
                    frame.map(|bytes| {
                        *left = left.saturating_sub(bytes.len() as u64);
                        Frame::data(bytes)
                    })
                })
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}
