//! Where a morning is played: one Redis and several services over it, all on loopback, in one directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::{join_all, select_all, try_join_all};
use tokio::sync::watch;

use super::store::{Seen, Store};
use crate::ids::RequestId;
use crate::load::service::{Own, Service, prepare};
use crate::load::sites::Places;
use crate::load::target::{LoadError, Target};
use crate::terminal::Connection;

/// Connections that are made at once.
const AT_ONCE: usize = 64;

/// A process that is started again on purpose; nothing while it is away for that.
type Place<T> = watch::Sender<Option<Arc<T>>>;

/// All that was started.
pub(super) struct Scene {
    directory: PathBuf,
    /// What the services are made of.
    own: Own,
    settings: Vec<(&'static str, String)>,
    places: Places,
    store: Place<Store>,
    services: Vec<Place<Service>>,
    targets: Vec<Target>,
}

impl Scene {
    /// Starts everything and waits until all services can record sales. What was started is stopped if one cannot.
    pub(super) async fn start(
        own: &Own,
        places: &Places,
        settings: Vec<(&'static str, String)>,
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
        settings: Vec<(&'static str, String)>,
        services: u32,
    ) -> Result<Self, LoadError> {
        prepare(directory, places).map_err(|error| LoadError::Failed(format!("{}: {error}", directory.display())))?;
        let store = Store::start(directory).await?;
        let mut scene = Self {
            directory: directory.to_owned(),
            own: Own { store: Some(store.url()), ..own.clone() },
            settings,
            places: places.clone(),
            store: watch::Sender::new(Some(Arc::new(store))),
            services: Vec::new(),
            targets: Vec::new(),
        };
        for nth in 1..=services {
            match scene.launch(&format!("service-{nth}"), None).await {
                Ok(service) => {
                    scene.targets.push(service.target.clone());
                    scene.services.push(watch::Sender::new(Some(Arc::new(service))));
                }
                Err(error) => {
                    scene.stop(false).await;
                    return Err(error);
                }
            }
        }
        Ok(scene)
    }

    async fn launch(&self, name: &str, another: Option<&Target>) -> Result<Service, LoadError> {
        self.own.launch(&self.directory, name, None, &self.settings, &self.places, another).await
    }

    /// Kills Redis and starts it again.
    pub(super) async fn restart_store(&self) -> Result<(), LoadError> {
        let Some(store) = self.store.send_replace(None) else { return Ok(()) };
        store.stop().await;
        let again = store.start_again(&self.directory).await?;
        self.store.send_replace(Some(Arc::new(again)));
        Ok(())
    }

    /// Stops a service, or kills it, and starts it again where it was.
    pub(super) async fn restart_service(&self, nth: usize, kill: bool) -> Result<(), LoadError> {
        let Some(place) = self.services.get(nth) else { return Ok(()) };
        let Some(service) = place.send_replace(None) else { return Ok(()) };
        if kill {
            service.kill().await;
        } else {
            service.end().await;
        }
        let again = self.launch(&format!("service-{}-again", nth + 1), Some(&service.target)).await?;
        place.send_replace(Some(Arc::new(again)));
        Ok(())
    }

    /// So many connections, spread over the services in turn.
    pub(super) async fn connect(&self, many: usize) -> Result<Vec<Connection>, LoadError> {
        let targets: Vec<&Target> = self.targets.iter().cycle().take(many).collect();
        let mut connections = Vec::with_capacity(many);
        for some in targets.chunks(AT_ONCE) {
            connections.extend(try_join_all(some.iter().map(|target| target.connect())).await?);
        }
        Ok(connections)
    }

    /// How many services there are.
    pub(super) fn services(&self) -> usize {
        self.services.len()
    }

    /// One of the services.
    pub(super) fn target(&self) -> Option<&Target> {
        self.targets.first()
    }

    /// What the store has now.
    pub(super) async fn look(&self) -> Option<Seen> {
        let store = self.store.borrow().clone()?;
        store.look().await
    }

    /// Ends when anything of it has ended that was not meant to, and says how.
    pub(super) async fn gone(&self) -> String {
        let services = self.services.iter().map(|place| Box::pin(gone(place, async |service| service.gone().await)));
        tokio::select! {
            (how, ..) = select_all(services) => how,
            how = gone(&self.store, async |store| store.gone().await) => how,
        }
    }

    /// Stops everything. The directory is removed unless it is to be kept; then it is named.
    pub(super) async fn stop(self, keep: bool) -> Option<PathBuf> {
        let services: Vec<Arc<Service>> = self.services.iter().filter_map(|place| place.borrow().clone()).collect();
        join_all(services.iter().map(|service| service.end())).await;
        let store = self.store.borrow().clone();
        if let Some(store) = store {
            store.stop().await;
        }
        if keep {
            return Some(self.directory);
        }
        // What cannot be removed hurts nobody where it is.
        let _ = std::fs::remove_dir_all(&self.directory);
        None
    }
}

/// Ends when whatever is there has ended by itself.
async fn gone<T>(place: &Place<T>, ended: impl AsyncFn(Arc<T>) -> String) -> String {
    let mut place = place.subscribe();
    loop {
        let here = place.borrow_and_update().clone();
        tokio::select! {
            // What is stopped on purpose is taken away first.
            biased;
            _ = place.changed() => {}
            how = async {
                match here {
                    Some(here) => ended(here).await,
                    None => std::future::pending().await,
                }
            } => return how,
        }
    }
}
