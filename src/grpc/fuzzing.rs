//! See [`crate::fuzzing`]: what comes over the wire.

use prost::Message;
use tokio::time::Instant;

use super::convert::{self, WireKnown, WireVisit};
use super::guard::Frames;
use super::v1::{self, purchase_stream_request::Call};

/// A message of a call: the first byte says which. What was read is the same when it is written and read again.
pub fn wire(bytes: &[u8]) {
    let Some((&which, message)) = bytes.split_first() else { return };
    match which % 9 {
        0 => read(message, |visit: v1::CheckPurchaseRequest| {
            let v1::CheckPurchaseRequest { programme, agent, lines, family_birth_years, .. } = &visit;
            let wire = WireVisit::of(programme, agent.as_ref(), lines, family_birth_years);
            converted(&WireVisit { with_ids: false, ..wire });
        }),
        1 => read(message, |visit: v1::PurchaseRequest| purchased(&visit)),
        2 => read(message, |visit: v1::HoldPurchaseRequest| {
            let v1::HoldPurchaseRequest { programme, agent, lines, family_birth_years, hold_for, .. } = &visit;
            let wire = WireVisit::of(programme, agent.as_ref(), lines, family_birth_years);
            converted(&WireVisit { hold_for: Some(hold_for.as_ref()), ..wire });
        }),
        3 => read(message, |known: v1::GetPurchaseRequest| {
            let v1::GetPurchaseRequest { programme, buyer, request_id, ledger_id, .. } = &known;
            let _ = convert::known(&WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id });
            let _ = (convert::ledger(ledger_id), convert::whose(programme, buyer.as_ref()));
        }),
        4 => read(message, |request: v1::PurchaseStreamRequest| {
            if let Some(Call::Purchase(visit)) = &request.call {
                purchased(visit);
            }
        }),
        5 => read(message, |_: v1::OpenSessionRequest| {}),
        6 => read(message, |_: v1::RenewSessionRequest| {}),
        7 => read(message, |_: v1::LookUpBuyerRequest| {}),
        _ => read(message, |_: v1::SetSwitchesRequest| {}),
    }
}

fn read<M: Message + Default + PartialEq>(bytes: &[u8], used: impl Fn(M)) {
    let Ok(message) = M::decode(bytes) else { return };
    assert!(M::decode(message.encode_to_vec().as_slice()).is_ok_and(|again| again == message), "read otherwise again");
    used(message);
}

fn purchased(visit: &v1::PurchaseRequest) {
    let v1::PurchaseRequest { programme, agent, lines, family_birth_years, .. } = visit;
    converted(&WireVisit::of(programme, agent.as_ref(), lines, family_birth_years));
}

fn converted(wire: &WireVisit<'_>) {
    let (asked, bad) = convert::visit(wire);
    assert!(asked.is_some() || !bad.is_empty(), "refused without a bad field");
}

/// Whatever a peer says, in whatever pieces: it is counted in the same way.
pub fn frames(bytes: &[u8]) {
    let now = Instant::now();
    let in_pieces = |size: usize| {
        let mut frames = Frames::new(now);
        bytes.chunks(size).try_for_each(|piece| frames.read(piece, || now))
    };
    let whole = in_pieces(bytes.len().max(1));
    assert!([1, 2, 9, 10, 24].into_iter().all(|size| in_pieces(size) == whole), "it depends on the pieces");
}
