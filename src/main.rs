//! The runner.
fn main() {
    // First of all: the sandbox's helper must have one thread.
    firedrill::sandbox::become_helper_if_asked();
}
