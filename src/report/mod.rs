//! Shows events and evidence to people: on a console and as a page. Pure: values in, text out.
//!
//! Every reader gets the answer first, then the reasons, then what the drill does not prove. Absent on purpose: no clock,
//! no terminal, no file, no decision. What is shown here was decided by `domain` and recorded by `evidence`.

pub mod console;
mod page;
mod phrases;
mod picture;

pub use page::html;
pub use phrases::answer;
