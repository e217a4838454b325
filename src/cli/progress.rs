//! What a person sees while a drill runs: events as lines, bytes as a bar. Quiet where nobody watches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::say;
use crate::domain::{DrillEvent, DrillEventKind, Phase};
use crate::drill::Listener;
use crate::report::console;
use crate::restore::Progress;

/// A bar over the restore's bytes, redrawn four times a second.
#[derive(Clone)]
pub(super) struct Ticker {
    bar: Option<ProgressBar>,
    progress: Arc<Progress>,
}

impl Ticker {
    pub(super) fn start(progress: Arc<Progress>, watched: bool) -> Self {
        let bar = watched.then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = "  {spinner} {msg} {bytes} of {total_bytes} read, {binary_bytes_per_sec}, {eta} left";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        let ticker = Self { bar, progress };
        if let Some(bar) = &ticker.bar {
            let (bar, progress) = (bar.clone(), Arc::clone(&ticker.progress));
            tokio::spawn(async move {
                while !bar.is_finished() {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    let total = progress.total.load(Ordering::Relaxed);
                    if total > 0 {
                        bar.set_length(total);
                        bar.set_position(progress.read.load(Ordering::Relaxed));
                    }
                }
            });
        }
        ticker
    }

    fn phase(&self, phase: Phase) {
        if let Some(bar) = &self.bar {
            bar.set_message(phase.word());
        }
    }

    /// Says a line without tearing the bar.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows events as they happen.
pub(super) struct Told {
    pub(super) ticker: Ticker,
}

impl Listener for Told {
    fn heard(&mut self, event: &DrillEvent) {
        if let DrillEventKind::PhaseBegan { phase, .. } = &event.kind {
            self.ticker.phase(*phase);
            return;
        }
        self.ticker.say(&format!("{:>9}  {}", event.elapsed.to_string(), console::line(event)));
    }
}
