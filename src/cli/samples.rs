//! `firedrill samples`: made-up data for the starter packs.

use std::fs;

use anyhow::{Context, ensure};

use super::args::{SamplesArgs, SamplesOf};
use super::{Exit, Failure, output};
use crate::app::samples::{SamplePack, write_pack};
use crate::clock::{Clock, SystemClock};
use crate::domain::Timestamp;

pub(super) fn run(args: &SamplesArgs) -> Result<Exit, Failure> {
    write(args).map_err(Failure::config)?;
    let out = args.out.display();
    output::line(&format!("made-up records in {out}; back them up with `firedrill seal {out} --to DIRECTORY …`, or with tools of your own"))
}

fn write(args: &SamplesArgs) -> anyhow::Result<()> {
    if let Ok(mut entries) = fs::read_dir(&args.out) {
        ensure!(entries.next().is_none(), "{} is not empty: name another directory with --out", args.out.display());
    }
    let now = SystemClock::new().now();
    let newest = args.newest.unwrap_or_else(|| Timestamp::from_unix(now.0.as_second() - 600));
    let pack = match args.pack {
        SamplesOf::Fhir => SamplePack::Fhir,
        SamplesOf::Dicom => SamplePack::Dicom,
        SamplesOf::Hl7 => SamplePack::Hl7,
        SamplesOf::Openmrs => SamplePack::Openmrs,
    };
    write_pack(pack, &args.out, args.seed, newest).with_context(|| format!("cannot write to {}", args.out.display()))
}
