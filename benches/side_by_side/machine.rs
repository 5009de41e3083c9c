//! What the figures were measured on.

use std::fs;
use std::io::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;

/// How often the disk is asked to sync.
const SYNCS: usize = 100;

/// No disk syncs faster than this.
const DISK: Duration = Duration::from_micros(15);

/// The machine's facts.
pub struct Machine {
    pub cores: usize,
    pub model: String,
    pub kernel: String,
    /// The median time of writing 4 KiB and syncing them where the stores' files are.
    pub sync: Duration,
}

impl Machine {
    pub fn look() -> Result<Self, Failure> {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            model: model.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            kernel: kernel.trim().to_owned(),
            sync: sync_time()?,
        })
    }

    /// Whether the stores' files seem to be on no disk at all.
    pub fn syncs_for_nothing(&self) -> bool {
        self.sync < DISK
    }
}

fn sync_time() -> Result<Duration, Failure> {
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times.get(SYNCS / 2).copied().ok_or_else(|| "nothing was synced".into())
}
