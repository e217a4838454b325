//! Pictures of the page: plain geometry, drawn as inline SVG by the template.

use crate::domain::{Elapsed, Phase};
use crate::evidence::Report;

/// Width of all pictures, in their own units.
pub(super) const WIDTH: f64 = 1_000.0;

/// Nothing that took place is drawn thinner.
const THINNEST: f64 = 3.0;

/// One phase on the timeline.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    pub x: f64,
    pub width: f64,
    /// Its class: colour and pattern belong to the style sheet.
    pub class: &'static str,
}

/// The phases side by side over the whole width; those too short to be seen are given a sliver, taken from the others.
pub(super) fn segments(report: &Report) -> Vec<Segment> {
    let lengths: Vec<(Phase, Elapsed)> = report.timeline.iter().map(|p| (p.phase, p.lasted)).collect();
    let widths = spread(&lengths.iter().map(|(_, e)| e.nanos as f64).collect::<Vec<_>>());
    let mut x = 0.0;
    lengths
        .iter()
        .zip(widths)
        .map(|((phase, _), width)| {
            let segment = Segment { x, width, class: class(*phase) };
            x += width;
            segment
        })
        .collect()
}

/// Where the recovery time ends on the timeline.
pub(super) fn recovery_ends(segments: &[Segment], report: &Report) -> Option<f64> {
    report.usable_after?;
    report.timeline.iter().zip(segments).filter(|(p, _)| p.counts).map(|(_, s)| s.x + s.width).reduce(f64::max)
}

fn spread(lengths: &[f64]) -> Vec<f64> {
    let total: f64 = lengths.iter().sum();
    if total <= 0.0 {
        return lengths.iter().map(|_| WIDTH / lengths.len() as f64).collect();
    }
    let natural = |length: f64| length / total * WIDTH;
    let thin = lengths.iter().filter(|l| natural(**l) < THINNEST).count() as f64;
    let wide: f64 = lengths.iter().map(|l| natural(*l)).filter(|w| *w >= THINNEST).sum();
    let scale = (WIDTH - thin * THINNEST) / wide;
    lengths.iter().map(|l| natural(*l)).map(|w| if w < THINNEST { THINNEST } else { w * scale }).collect()
}

pub(super) fn class(phase: Phase) -> &'static str {
    match phase {
        Phase::Provision => "p1",
        Phase::Locate => "p2",
        Phase::Preflight => "p3",
        Phase::Restore => "p4",
        Phase::Load => "p5",
        Phase::Ready => "p6",
        Phase::Inspect | Phase::Verify | Phase::Teardown => "p0",
    }
}

/// What was achieved against what was promised, on one scale.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gauge {
    /// Width of what was measured.
    pub measured: f64,
    /// Width of what was declared, after the measured.
    pub declared: f64,
    /// Where the promise is.
    pub target: f64,
}

/// The scale reaches a little beyond the greater of both.
pub(super) fn gauge(measured: f64, declared: f64, target: f64) -> Gauge {
    let most = (measured + declared).max(target) * 1.08;
    let at = |value: f64| if most > 0.0 { value / most * WIDTH } else { 0.0 };
    Gauge { measured: at(measured).max(THINNEST), declared: at(declared), target: at(target) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::sample;

    #[test]
    fn the_timeline_fills_its_width_and_hides_no_phase() {
        let report = sample::report(&sample::passed());
        let segments = segments(&report);
        assert_eq!(segments.len(), report.timeline.len());
        let end = segments.last().map(|s| s.x + s.width).unwrap();
        assert!((end - WIDTH).abs() < 1e-6, "{end}");
        assert!(segments.iter().all(|s| s.width >= THINNEST - 1e-9));
        let usable = recovery_ends(&segments, &report).unwrap();
        assert!(usable > 900.0 && usable < WIDTH);
    }

    #[test]
    fn no_length_is_no_panic() {
        assert_eq!(spread(&[]), Vec::<f64>::new());
        assert_eq!(spread(&[0.0, 0.0]), [500.0, 500.0]);
        assert_eq!(gauge(0.0, 0.0, 0.0).target, 0.0);
    }

    #[test]
    fn a_missed_promise_lies_within_the_bar() {
        let missed = gauge(200.0, 0.0, 100.0);
        assert!(missed.target < missed.measured && missed.measured < WIDTH);
    }
}
