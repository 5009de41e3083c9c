//! The tasks that a service cannot do without: when one of them ends before the service does, the service must not go on
//! as if it ran.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinError, JoinSet};

use crate::museum::{self, Mutant};

/// What a task came to: an end of its own, or what went wrong.
pub(super) type End = Result<(), String>;

/// The running tasks, each with a name for the log.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<End>,
    names: HashMap<Id, &'static str>,
}

/// A task that must last as long as the service ended before it.
#[derive(Debug, thiserror::Error)]
#[error("the service cannot go on without {task}, which broke off: {why}")]
pub struct Broke {
    pub(super) task: &'static str,
    pub(super) why: String,
}

impl Tasks {
    pub(super) fn spawn(&mut self, name: &'static str, work: impl Future<Output = End> + Send + 'static) {
        let work = async move {
            tokio::select! {
                ended = work => ended,
                () = museum::breaks_off(name) => Err("the museum broke it off".into()),
            }
        };
        let id = self.running.spawn(work).id();
        self.names.insert(id, name);
    }

    /// Waits for the first task to end, in whatever way. Not before all of them are spawned.
    pub(super) async fn first_end(&mut self) -> Broke {
        if Mutant::DeathUnnoticed.is_on() {
            return std::future::pending().await;
        }
        match self.running.join_next_with_id().await {
            Some(ended) => self.told(ended),
            None => Broke { task: "its tasks", why: "there are none".into() },
        }
    }

    /// Waits until every task has ended, as they should by now, and logs those that ended badly.
    pub(super) async fn all_ended(&mut self) {
        while let Some(ended) = self.running.join_next_with_id().await {
            if !matches!(ended, Ok((_, Ok(())))) {
                let Broke { task, why } = self.told(ended);
                tracing::error!(task, why, "ended badly during the stop");
            }
        }
    }

    fn told(&self, ended: Result<(Id, End), JoinError>) -> Broke {
        let (id, why) = match ended {
            Ok((id, Ok(()))) => (id, "it came to its end".to_owned()),
            Ok((id, Err(why))) => (id, why),
            Err(error) => (error.id(), error.to_string()),
        };
        Broke { task: self.names.get(&id).copied().unwrap_or("a task"), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn broke(name: &'static str, work: impl Future<Output = End> + Send + 'static) -> String {
        let mut tasks = Tasks::default();
        tasks.spawn("the one that lasts", std::future::pending());
        tasks.spawn(name, work);
        tasks.first_end().await.to_string()
    }

    #[tokio::test]
    async fn whoever_ends_first_is_named_whether_it_returns_fails_or_panics() {
        let returned = broke("the sweep", async { Ok(()) }).await;
        assert!(returned.contains("without the sweep") && returned.contains("came to its end"), "{returned}");
        let failed = broke("a listener", async { Err("the socket is gone".into()) }).await;
        assert!(failed.contains("without a listener") && failed.contains("the socket is gone"), "{failed}");
        let panicked = broke("the registry", async { panic!("out of seats") }).await;
        assert!(panicked.contains("without the registry") && panicked.contains("out of seats"), "{panicked}");
    }
}
