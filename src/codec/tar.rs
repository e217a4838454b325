//! tmp
/// tmp
pub fn begins_as_tar(_p: &[u8]) -> bool {
    false
}
