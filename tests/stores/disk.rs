//! A disk that loses its power at a chosen sync, and remembers only what a disk may be trusted with.

use std::io::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redb::StorageBackend;

/// What becomes of writes that no sync has confirmed.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// None of them reached the medium.
    Lost,
    /// All of them did, and only the confirmation is missing.
    Kept,
    /// Every second one did.
    Torn,
}

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What the medium holds for certain.
    kept: Vec<u8>,
    unsynced: Vec<Write>,
    syncs: u64,
    cut: Option<(u64, Fate)>,
    dark: bool,
    stalled: bool,
}

#[derive(Debug)]
enum Write {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Length(length) => bytes.resize(*length, 0),
        Write::Bytes(offset, written) => bytes[*offset..*offset + written.len()].copy_from_slice(written),
    }
}

impl Disk {
    /// Cuts the power at this sync, counted from 1.
    pub fn cut_at(&self, sync: u64, fate: Fate) {
        self.state().cut = Some((sync, fate));
    }

    /// How many syncs there were.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Whether the power has gone.
    pub fn is_dark(&self) -> bool {
        self.state().dark
    }

    /// Lets every sync wait, or go on.
    pub fn stall(&self, stalled: bool) {
        self.state().stalled = stalled;
    }

    /// A disk with what the medium holds, under power again.
    pub fn survivor(&self) -> Self {
        let kept = self.state().kept.clone();
        Self(Arc::new(Mutex::new(State { seen: kept.clone(), kept, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn under_power(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.dark { Err(Error::other("the power is gone")) } else { Ok(state) }
    }

    fn write(&self, write: Write) -> Result<()> {
        let mut state = self.under_power()?;
        apply(&mut state.seen, &write);
        state.unsynced.push(write);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.under_power()?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let state = self.under_power()?;
        let from = offset as usize;
        let bytes = state.seen.get(from..from + out.len()).ok_or_else(|| Error::other("read past the end"))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.write(Write::Length(len as usize))
    }

    fn sync_data(&self) -> Result<()> {
        while self.state().stalled {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut state = self.under_power()?;
        state.syncs += 1;
        let unsynced = std::mem::take(&mut state.unsynced);
        let cut = state.cut.filter(|(sync, _)| *sync == state.syncs);
        for (place, write) in unsynced.iter().enumerate() {
            let reached = match cut {
                None | Some((_, Fate::Kept)) => true,
                Some((_, Fate::Lost)) => false,
                // A length always does: without it the rest would have no place.
                Some((_, Fate::Torn)) => place % 2 == 0 || matches!(write, Write::Length(_)),
            };
            if reached {
                apply(&mut state.kept, write);
            }
        }
        state.dark = cut.is_some();
        if state.dark { Err(Error::other("the power went")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write(Write::Bytes(offset as usize, data.to_vec()))
    }
}
