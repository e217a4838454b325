//! A pinned object of the vault as a source.

use std::io::{self, Read};
use std::ops::Range;

use super::SealedSource;
use crate::domain::Blake3;
use crate::vault::SealedObject;

impl SealedSource for SealedObject {
    fn size(&self) -> u64 {
        SealedObject::size(self)
    }
    fn open(&self, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        SealedObject::open(self, range)
    }
    fn digest(&self) -> Option<Blake3> {
        SealedObject::digest(self)
    }
}
