//! /proc/interrupts: interrupts by their number or kind, and by processor.

use super::Source;
use crate::config::OnDemand;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Site};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::matrix::Matrix;
use crate::ingest::collectors::procfile::{ProcFile, words_and_colons};
use crate::ingest::collectors::setup::Setup;
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/interrupts";
const SECTION: &str = "plugin:proc:/proc/interrupts";

static TOTAL: ChartDef = ChartDef {
    id: "system.interrupts",
    title: "Interrupts by source",
    units: "interrupts/s",
    family: "interrupts",
    chart_type: ChartType::Stacked,
    priority: 1000,
    ..CHART
};

static CORE: ChartDef = ChartDef {
    id: "cpu",
    title: "Interrupts of one processor by source",
    units: "interrupts/s",
    family: "interrupts",
    context: "cpu.interrupts",
    chart_type: ChartType::Stacked,
    priority: 1100,
    ..CHART
};

struct Interrupts {
    site: Site,
    file: ProcFile,
    matrix: Matrix,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let per_core = setup.when(SECTION, "interrupts per core", OnDemand::Auto);
    let file = ProcFile::open(setup.path(SECTION, "filename to monitor", NAME))?;
    let matrix = Matrix::new(&TOTAL, &CORE, per_core, "_interrupts", name_of);
    Some(Box::new(Interrupts { site: setup.proc_site(NAME), file, matrix }))
}

/// A numbered interrupt is named after the last of its devices.
fn name_of(tag: &str, rest: &[u8]) -> String {
    let numbered = tag.starts_with(|first: char| first.is_ascii_digit());
    match words_and_colons(rest).last().filter(|_| numbered) {
        Some(device) => format!("{}_{tag}", String::from_utf8_lossy(device)),
        None => tag.to_owned(),
    }
}

impl Source for Interrupts {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        if let Some(text) = self.file.read(tick.buffer) {
            self.matrix.collect(At::new(&self.site, tick.now), text);
        }
        After::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_interrupts_are_named_after_their_last_device() {
        let check = |tag, rest: &str, name| assert_eq!(name_of(tag, rest.as_bytes()), name);
        check("24", "  IO-APIC   5-edge      ACPI:Ged", "Ged_24");
        check("16", " IO-APIC 16-fasteoi ehci_hcd:usb1, ath9k", "ath9k_16");
        check("27", " PCI-MSI 512000-edge ahci[0000:00:17.0]", "17.0]_27");
        check("LOC", " Local timer interrupts", "LOC");
        check("7", "", "7");
    }
}
