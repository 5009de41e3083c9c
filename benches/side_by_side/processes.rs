//! Processes that end when whoever holds them is gone, and what CPU time they have used.

use std::process::{Child, Command};
use std::time::Duration;

use crate::Failure;

/// Linux counts CPU time in this unit for every program, whatever its own clock does.
const TICK: Duration = Duration::from_millis(10);
/// How long a process that was asked to end may take before it is made to.
const FAREWELL: Duration = Duration::from_secs(5);

/// A process of ours.
pub struct Process {
    child: Child,
    /// The signal that it is asked to end with; `None`: it is killed at once.
    farewell: Option<&'static str>,
}

impl Process {
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("{program} cannot be started: {error}"))?;
        Ok(Self { child, farewell: None })
    }

    /// The same, for a program that leaves things behind when it is killed.
    pub fn ending_with(mut self, signal: &'static str) -> Self {
        self.farewell = Some(signal);
        self
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn ask_to_end(&mut self, signal: &str) {
        let asked = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while asked.is_ok() && self.runs() && waited < FAREWELL {
            std::thread::sleep(step);
            waited += step;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let (Some(signal), true) = (self.farewell, self.runs()) {
            self.ask_to_end(signal);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whose CPU time is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Cpu {
    /// This process alone.
    Own,
    /// The programs that this process started and that have ended.
    Ended,
    /// One process.
    Of(u32),
    /// A primary and its replicas.
    Three([u32; 3]),
    /// One process, the processes that it has started, and those of them that have ended.
    Family(u32),
}

impl Cpu {
    /// Its CPU time so far.
    pub fn used(self) -> Result<Duration, Failure> {
        let ticks = match self {
            Self::Own => Stat::read("self")?.own,
            Self::Ended => Stat::read("self")?.ended_children,
            Self::Of(process) => Stat::read(&process.to_string())?.own,
            Self::Three(processes) => {
                let mut ticks = 0;
                for process in processes {
                    ticks += Stat::read(&process.to_string())?.own;
                }
                ticks
            }
            Self::Family(parent) => {
                let stat = Stat::read(&parent.to_string())?;
                stat.own + stat.ended_children + children_of(parent)?
            }
        };
        Ok(TICK * ticks)
    }
}

/// What stands in `/proc/ID/stat`, in ticks.
struct Stat {
    parent: u32,
    own: u32,
    ended_children: u32,
}

impl Stat {
    fn read(process: &str) -> Result<Self, Failure> {
        let path = format!("/proc/{process}/stat");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        // The name before may hold anything.
        let (_, rest) = text.rsplit_once(')').ok_or("a stat file without a name")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |at: usize| -> Result<u32, Failure> {
            let field = fields.get(at).and_then(|field| field.parse().ok());
            field.ok_or_else(|| format!("{path}: field {at} is no number").into())
        };
        Ok(Self { parent: field(1)?, own: field(11)? + field(12)?, ended_children: field(13)? + field(14)? })
    }
}

fn children_of(parent: u32) -> Result<u32, Failure> {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        // One that ends meanwhile is among the ended ones the next time.
        if let Ok(stat) = Stat::read(process)
            && stat.parent == parent
        {
            ticks += stat.own + stat.ended_children;
        }
    }
    Ok(ticks)
}
