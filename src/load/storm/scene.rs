//! Where a morning is played: one Redis and several services over it, all on loopback, in one directory.

use std::path::{Path, PathBuf};

use futures_util::future::{select_all, try_join_all};

use super::store::{Seen, Store};
use crate::ids::RequestId;
use crate::load::service::{Own, Service, prepare};
use crate::load::sites::Places;
use crate::load::target::{LoadError, Target};
use crate::terminal::Connection;

/// Connections that are made at once.
const AT_ONCE: usize = 64;

/// All that was started.
pub(super) struct Scene {
    directory: PathBuf,
    store: Store,
    services: Vec<Service>,
}

impl Scene {
    /// Starts everything and waits until all services can record sales. What was started is stopped if one cannot.
    pub(super) async fn start(
        own: &Own,
        places: &Places,
        settings: &[(&str, String)],
        services: u32,
    ) -> Result<Self, LoadError> {
        let directory = own.scratch.join(format!("rationd-load-{}", RequestId::random()));
        let started = Self::start_in(&directory, own, places, settings, services).await;
        if started.is_err() {
            // Whatever is left is of no use to anybody.
            let _ = std::fs::remove_dir_all(&directory);
        }
        started
    }

    async fn start_in(
        directory: &Path,
        own: &Own,
        places: &Places,
        settings: &[(&str, String)],
        services: u32,
    ) -> Result<Self, LoadError> {
        prepare(directory, places).map_err(|error| LoadError::Failed(format!("{}: {error}", directory.display())))?;
        let store = Store::start(directory).await?;
        let own = Own { store: Some(store.url()), ..own.clone() };
        let mut scene = Self { directory: directory.to_owned(), store, services: Vec::new() };
        for nth in 1..=services {
            match own.launch(directory, &format!("service-{nth}"), None, settings, places).await {
                Ok(service) => scene.services.push(service),
                Err(error) => {
                    scene.stop(false).await;
                    return Err(error);
                }
            }
        }
        Ok(scene)
    }

    /// So many connections, spread over the services in turn.
    pub(super) async fn connect(&self, many: usize) -> Result<Vec<Connection>, LoadError> {
        let targets: Vec<&Target> = self.services.iter().map(|service| &service.target).cycle().take(many).collect();
        let mut connections = Vec::with_capacity(many);
        for some in targets.chunks(AT_ONCE) {
            connections.extend(try_join_all(some.iter().map(|target| target.connect())).await?);
        }
        Ok(connections)
    }

    /// One of the services.
    pub(super) fn target(&self) -> Option<&Target> {
        self.services.first().map(|service| &service.target)
    }

    /// What the store has now.
    pub(super) async fn look(&self) -> Option<Seen> {
        self.store.look().await
    }

    /// Ends when anything of it has ended, and says how.
    pub(super) async fn gone(&self) -> String {
        let services = select_all(self.services.iter().map(|service| Box::pin(service.gone())));
        tokio::select! {
            (how, ..) = services => how,
            how = self.store.gone() => how,
        }
    }

    /// Stops everything. The directory is removed unless it is to be kept; then it is named.
    pub(super) async fn stop(self, keep: bool) -> Option<PathBuf> {
        futures_util::future::join_all(self.services.iter().map(Service::end)).await;
        self.store.stop().await;
        if keep {
            return Some(self.directory);
        }
        // What cannot be removed hurts nobody where it is.
        let _ = std::fs::remove_dir_all(&self.directory);
        None
    }
}
