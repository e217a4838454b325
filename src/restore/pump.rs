//! A reader on a thread of its own, so that stages of one stream work at the same time.

use std::io::{self, BufRead, Read};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Buffers on their way.
const DEPTH: usize = 3;

/// The near end of a pump.
pub(super) struct Pump {
    full: Option<Receiver<io::Result<Vec<u8>>>>,
    empty: Option<Sender<Vec<u8>>>,
    buffer: Vec<u8>,
    at: usize,
    done: bool,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Reads `reader` on a new thread, in buffers of `size` bytes that are filled before they are passed on.
    pub(super) fn new(name: &str, reader: Box<dyn Read + Send>, size: usize) -> io::Result<Self> {
        let (mut near, far) = ends(reader, size);
        near.thread = Some(std::thread::Builder::new().name(name.to_owned()).spawn(far)?);
        Ok(near)
    }
}

/// The near end, and the work of the far one.
fn ends(mut reader: Box<dyn Read + Send>, size: usize) -> (Pump, impl FnOnce() + Send) {
    let (full_in, full) = bounded::<io::Result<Vec<u8>>>(DEPTH);
    let (empty, empty_out) = bounded::<Vec<u8>>(DEPTH + 2);
    let far = move || {
        loop {
            let mut buffer = empty_out.try_recv().unwrap_or_default();
            buffer.resize(size, 0);
            let result = fill(&mut *reader, &mut buffer);
            let last = !matches!(result, Ok(n) if n == size);
            let sent = match result {
                Ok(0) => break,
                Ok(n) => {
                    buffer.truncate(n);
                    full_in.send(Ok(buffer))
                }
                Err((0, error)) => full_in.send(Err(error)),
                // what came before the error is still good for telling what went wrong further on
                Err((n, error)) => {
                    buffer.truncate(n);
                    full_in.send(Ok(buffer)).and_then(|()| full_in.send(Err(error)))
                }
            };
            if sent.is_err() || last {
                break;
            }
        }
    };
    (Pump { full: Some(full), empty: Some(empty), buffer: Vec::new(), at: 0, done: false, thread: None }, far)
}

/// Fills the buffer; on an error, how many bytes came before it.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, (usize, io::Error)> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err((filled, e)),
        }
    }
    Ok(filled)
}

impl BufRead for Pump {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() && !self.done {
            let received = self.full.as_ref().map(Receiver::recv);
            match received {
                Some(Ok(Ok(buffer))) => {
                    let used = std::mem::replace(&mut self.buffer, buffer);
                    self.at = 0;
                    if let Some(empty) = &self.empty {
                        // a full channel only means that there are buffers enough
                        let _ = empty.try_send(used);
                    }
                }
                Some(Ok(Err(error))) => {
                    self.done = true;
                    return Err(error);
                }
                Some(Err(_)) | None => self.done = true,
            }
            if self.done {
                self.buffer.clear();
                self.at = 0;
                self.join()?;
            }
        }
        Ok(&self.buffer[self.at..])
    }
    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.buffer.len());
    }
}

impl Read for Pump {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        crate::codec::read_buffered(self, buf)
    }
}

impl Pump {
    /// A thread that panicked has not told of an end: its silence must not pass for one.
    fn join(&mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(io::Error::other("a stage of the restore failed unexpectedly")),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // without receivers its next send fails, and it ends
        self.full = None;
        self.empty = None;
        let _ = self.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_errors_come_through_in_order() {
        let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut out = Vec::new();
        Pump::new("t", Box::new(io::Cursor::new(data.clone())), 1000).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, data);

        struct Fails(u32);
        impl Read for Fails {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 3 {
                    Err(io::Error::new(io::ErrorKind::ConnectionReset, "reset"))
                } else {
                    buf[0] = 7;
                    Ok(1)
                }
            }
        }
        let mut out = Vec::new();
        let error = Pump::new("t", Box::new(Fails(0)), 1000).unwrap().read_to_end(&mut out).unwrap_err();
        assert_eq!((out, error.kind()), (vec![7, 7, 7], io::ErrorKind::ConnectionReset));
    }

    #[test]
    fn dropping_it_ends_its_thread() {
        let mut pump = Pump::new("t", Box::new(io::repeat(1)), 1000).unwrap();
        assert_eq!(pump.fill_buf().unwrap()[0], 1);
        drop(pump); // joins
    }
}
