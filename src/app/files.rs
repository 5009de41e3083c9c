//! The files of programmes and sites: read at the start, taken up again when they change, and refused where the records
//! that were made under the old ones would not be found again.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{Config, read_policy_files};
use crate::policy::Policies;
use crate::sites::Sites;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};

/// The programmes and sites as their files say.
pub(super) struct Loaded {
    pub(super) policies: Arc<ArcSwap<Policies>>,
    pub(super) sites: Arc<ArcSwap<Sites>>,
    /// The texts that were judged last; `None` after files that could not be read.
    judged: Option<Texts>,
    /// The problem that was told last and still stands.
    told: Option<String>,
}

/// Every programme's file with its name, and that of the sites.
type Texts = (Vec<(String, String)>, Option<String>);

/// The files of the configuration cannot be used; the text names each problem on a line of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadFiles(String);

impl Loaded {
    /// Reads programmes and sites.
    pub(super) fn read(config: &Config) -> Result<Self, BadFiles> {
        let texts = texts(config)?;
        Ok(Self {
            policies: Arc::new(ArcSwap::from_pointee(policies(&texts)?)),
            sites: Arc::new(ArcSwap::from_pointee(sites(config)?)),
            judged: Some(texts),
            told: None,
        })
    }

    /// Takes up changed files for as long as the service runs. The contents are compared, not the times of the files, so a
    /// file renamed over another and a swapped symbolic link are seen too. Bad files are refused, and each problem is told
    /// once: the old ones stay.
    pub(super) async fn follow(mut self, config: Config, metrics: Arc<Metrics>) {
        loop {
            tokio::time::sleep(config.reload).await;
            match tokio::task::block_in_place(|| self.read_again(&config)) {
                Ok(None) => {}
                Ok(Some(warnings)) => {
                    tracing::info!("changed programmes and sites are in force");
                    for warning in warnings {
                        tracing::warn!("{warning}");
                    }
                    metrics.policy_reloaded(ReloadOutcome::Applied);
                    self.told = None;
                }
                Err(BadFiles(problems)) if self.told.as_ref() == Some(&problems) => {}
                Err(error) => {
                    tracing::error!(%error, "changed files are refused; the old programmes and sites stay in force");
                    metrics.policy_reloaded(ReloadOutcome::Rejected);
                    self.told = Some(error.0);
                }
            }
        }
    }

    /// `None` when nothing has changed; else what the operator should know of the change that is now in force.
    fn read_again(&mut self, config: &Config) -> Result<Option<Vec<String>>, BadFiles> {
        let before = self.judged.take();
        let texts = texts(config)?;
        let changed = before.as_ref() != Some(&texts);
        // What was seen is remembered before it is judged, so that the same bad file is not judged at every look.
        let texts = self.judged.insert(texts);
        if !changed {
            return Ok(None);
        }
        let (policies, sites) = (policies(texts)?, sites(config)?);
        let warnings = compare(&self.policies.load(), &policies)?;
        self.policies.store(Arc::new(policies));
        self.sites.store(Arc::new(sites));
        Ok(Some(warnings))
    }
}

/// Whether a running service may go over from `old` to `new`, and with which warnings. Records are found by a programme's
/// code and by what its buyers' numbers are: under another code, or another kind of numbers, every buyer could buy again.
fn compare(old: &Policies, new: &Policies) -> Result<Vec<String>, BadFiles> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    for before in old.iter() {
        let id = before.id();
        let Some(after) = new.get(id) else {
            problems.push(format!(
                "{id} is in force and has no file any more; put it back, or restart the service to remove it"
            ));
            continue;
        };
        let anew = "put it back; a new programme needs a new `id` and a new `code`";
        if after.code() != before.code() {
            let (was, is) = (before.code(), after.code());
            problems.push(format!(
                "{id}: `code` was {was} and is {is} now, where none of its sales would be found; {anew}"
            ));
        }
        if after.buyer_ids() != before.buyer_ids() {
            problems.push(format!(
                "{id}: `buyer_id` is another one, under which none of its buyers would be known; {anew}"
            ));
        }
        if after.kept() > before.kept() {
            let (was, is) = (before.kept().as_secs() / 86_400, after.kept().as_secs() / 86_400);
            warnings.push(format!(
                "{id}: sales are kept for {is} days from now on; those that were older than {was} days may have been swept \
                 already and do not count in the longer windows"
            ));
        }
    }
    for after in new.iter() {
        if let Some(owner) = old.iter().find(|before| before.code() == after.code() && before.id() != after.id()) {
            let (id, code, owner) = (after.id(), after.code(), owner.id());
            problems.push(format!(
                "{id}: its `code` {code} is in use by {owner}, whose sales would count as its own; give it a new one"
            ));
        }
    }
    if problems.is_empty() { Ok(warnings) } else { Err(BadFiles(problems.join("\n"))) }
}

fn texts(config: &Config) -> Result<Texts, BadFiles> {
    let policies = config.policies.as_deref().map_or(Ok(Vec::new()), read_policy_files);
    let unreadable = |path: &std::path::Path, e| BadFiles(format!("{}: cannot be read: {e}", path.display()));
    let sites = config.sites.as_deref().map(|path| std::fs::read_to_string(path).map_err(|e| unreadable(path, e)));
    Ok((policies.map_err(|e| BadFiles(e.to_string()))?, sites.transpose()?))
}

fn policies((files, _): &Texts) -> Result<Policies, BadFiles> {
    Policies::with_files(files).map_err(|e| BadFiles(e.to_string()))
}

fn sites(config: &Config) -> Result<Sites, BadFiles> {
    config.load_sites().map_err(|e| BadFiles(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOODS: &str = r#"id = "goods"
code = "gd"
title = "Goods"
unit = "piece"
zone = "Asia/Seoul"
buyer_id = "opaque"
max_hold_minutes = 60

[[periods]]
from = 2020-01-01
windows = [{ kind = "week", starts = "mon", units = 2 }]

[[channels]]
from = 2020-01-01
channel = "pharmacy"
"#;

    fn with(text: &str) -> Policies {
        Policies::with_files(&[("goods.toml".into(), text.into())]).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn what_would_lose_records_is_refused_by_name_with_a_remedy() {
        let old = with(GOODS);
        let refused = |new: &Policies| compare(&old, new).unwrap_err().to_string();
        let code = refused(&with(&GOODS.replace("\"gd\"", "\"xx\"")));
        assert!(
            code.contains("goods: `code` was gd and is xx now") && code.contains("new `id` and a new `code`"),
            "{code}"
        );
        let scheme = refused(&with(&GOODS.replace("\"opaque\"", "\"kr_resident\"")));
        assert!(scheme.contains("goods: `buyer_id`") && scheme.contains("new `id` and a new `code`"), "{scheme}");
        let removed = refused(&Policies::built_in());
        assert!(removed.contains("goods is in force") && removed.contains("restart"), "{removed}");
        let taken = refused(&with(&GOODS.replace("\"goods\"", "\"other\"")));
        assert!(taken.contains("other: its `code` gd is in use by goods"), "{taken}");
    }

    #[test]
    fn a_longer_memory_is_taken_with_a_warning_and_a_shorter_one_without() {
        let longer = GOODS.replace("kind = \"week\", starts = \"mon\"", "kind = \"month\"");
        let (old, longer) = (with(GOODS), with(&longer));
        let warned = compare(&old, &longer).unwrap();
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(warned[0].starts_with("goods: ") && warned[0].contains("older than"), "{warned:?}");
        assert!(compare(&longer, &old).unwrap().is_empty());
        assert!(compare(&old, &with(&GOODS.replace("units = 2", "units = 3"))).unwrap().is_empty());
    }
}
