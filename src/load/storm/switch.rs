//! What an operator does at the end of a morning: from then on a site has one terminal.

use std::time::Duration;

use super::LOOK;
use super::morning::ONE_TERMINAL;
use super::notes::Notes;
use super::scene::Scene;
use crate::grpc::v1::SetSwitchesRequest;
use crate::load::target::LoadError;
use crate::terminal::{Connection, Operator};

/// After this nobody waits any more for sessions that were to end: every instance is to go by a switch within two seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Moves the switch when that phase begins, through one service, and ends when every session that is one too many has ended;
/// at once where there is no such phase.
pub(super) async fn one_terminal(
    scene: &Scene,
    notes: &Notes,
    phases: &[(Duration, &'static str)],
) -> Result<(), LoadError> {
    let Some((from, _)) = phases.iter().find(|(_, name)| *name == ONE_TERMINAL) else { return Ok(()) };
    let target = scene.target().ok_or_else(|| LoadError::Failed("there is no service".into()))?;
    let failed = |error: String| LoadError::Failed(format!("the switch to one terminal: {error}"));
    let address = target.operator.as_ref().ok_or_else(|| failed("nobody may move it".into()))?;
    let operator = Operator::on(&Connection::open(address, target.operator_tls.as_ref()).await?);
    notes.clock().sleep_until(*from).await;
    let document = "one_terminal = true\n".to_owned();
    let reason = format!("the phase `{ONE_TERMINAL}`");
    // From before it is asked for, so that the way there counts. No switch was moved before.
    notes.switched();
    let wanted = SetSwitchesRequest { version: 0, document, reason, below_live: false };
    operator.set_switches(wanted).await.map_err(|error| failed(error.to_string()))?;
    let over = async {
        while notes.switch().is_some_and(|switch| switch.took.is_none()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // What lasts even then is in the report.
    let _ = tokio::time::timeout(PATIENCE, over).await;
    Ok(())
}
