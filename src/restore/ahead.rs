//! A large file's frames, decoded on several threads and handed out in their order.

use std::io::{self, BufRead, Read};
use std::thread::{Builder, Scope};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::codec::{FrameDecoder, Frames, PackedFrame};

/// Where a frame's plain bytes will be told.
type Decoded = io::Result<Vec<u8>>;

/// The near end: reads one frame after the other.
pub(super) struct Ahead {
    order: Receiver<Receiver<Decoded>>,
    used: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
}

impl Ahead {
    /// Decodes `frames` on `threads` threads within `scope`, a few frames ahead of who reads.
    pub(super) fn within<'scope, S>(scope: &'scope Scope<'scope, '_>, mut frames: Frames<'scope, S>, threads: usize) -> io::Result<Self>
    where
        S: FnMut(&mut [u8]) -> io::Result<usize> + Send + 'scope,
    {
        let (order_in, order) = bounded::<Receiver<Decoded>>(threads + 1);
        let (work_in, work) = bounded::<(PackedFrame, Sender<Decoded>)>(threads);
        let (packed_used_in, packed_used) = unbounded::<PackedFrame>();
        let (used, plain_used) = unbounded::<Vec<u8>>();
        for _ in 0..threads {
            let (work, packed_used_in, plain_used) = (work.clone(), packed_used_in.clone(), plain_used.clone());
            let mut decoder = FrameDecoder::new()?;
            Builder::new().name("restore-decode".to_owned()).spawn_scoped(scope, move || {
                for (packed, to) in work {
                    let mut plain = plain_used.try_recv().unwrap_or_default();
                    let result = decoder.decode(&packed, &mut plain);
                    // nobody to take them only means that the restore ends early
                    let _ = to.send(result.map(|()| plain));
                    let _ = packed_used_in.send(packed);
                }
            })?;
        }
        Builder::new().name("restore-open".to_owned()).spawn_scoped(scope, move || {
            loop {
                let mut packed = packed_used.try_recv().unwrap_or_default();
                let next = frames.next_packed(&mut packed);
                let (to, from) = bounded(1);
                if matches!(next, Ok(false)) || order_in.send(from).is_err() {
                    return;
                }
                if let Err(error) = next {
                    let _ = to.send(Err(error));
                    return;
                }
                if work_in.send((packed, to)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { order, used, buffer: Vec::new(), at: 0 })
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // a thread that panics takes the scope with it: an early end of the order cannot pass for the end of the file
        while self.at == self.buffer.len() {
            let Ok(frame) = self.order.recv() else { break };
            let plain = frame.recv().unwrap_or_else(|_| Err(io::Error::other("a stage of the restore failed unexpectedly")))?;
            let _ = self.used.send(std::mem::replace(&mut self.buffer, plain));
            self.at = 0;
        }
        Ok(&self.buffer[self.at..])
    }
    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Ahead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        crate::codec::read_buffered(self, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_order_and_so_does_an_error() {
        let plain: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
        let packed: Vec<u8> = plain.chunks(10_000).flat_map(|p| zstd::bulk::compress(p, 1).unwrap()).collect();
        for (cut, whole) in [(packed.len(), true), (packed.len() - 1, false)] {
            let mut rest = &packed[..cut];
            let source = move |out: &mut [u8]| rest.read(out);
            let mut decoder = FrameDecoder::new().unwrap();
            let frames = Frames::new(source, plain.len() as u64, &mut decoder);
            let mut got = Vec::new();
            let result = std::thread::scope(|scope| Ahead::within(scope, frames, 3).unwrap().read_to_end(&mut got));
            assert_eq!(result.is_ok(), whole);
            assert!(plain.starts_with(&got) && got.len() >= plain.len() - 10_000);
        }
    }
}
