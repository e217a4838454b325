//! (room to be furnished)

pub mod s3;
