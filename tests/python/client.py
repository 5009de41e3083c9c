"""A counter terminal in Python: opens a session, buys, is refused, asks again, takes the sale back, sells over a stream.

Generated code only, and what the gRPC project itself ships: no line of this knows the server's language. Every step is
asserted and printed. Usage: client.py HOST:PORT [CA.pem SITE.pem SITE.key], of a service on a fresh store at a weekend, for
example one that was started with `rationd serve --clock 2026-11-21T10:00:00+09:00`: on other days the programme does not sell
to these two. With the files it calls over TLS, as the site 11000001 that its certificate names.
"""

import sys
import uuid

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from rationd.v1 import purchase_service_pb2 as purchase
from rationd.v1 import purchase_service_pb2_grpc, session_service_pb2_grpc
from rationd.v1 import session_service_pb2 as session

PROGRAMME = "weekly-essentials"
SITE = (("rationd-site", "11000001"), ("rationd-terminal", "python"))
# Invented; they belong to nobody.
BUYER = purchase.Buyer(resident_number="810305-1000112")
OTHER = purchase.Buyer(resident_number="631120-2162511")
# Every call has a deadline.
DEADLINE_S = 10


def say(what, *details):
    print(f"{what:<34}", *details)


def details_of(error):
    """The typed details of a failed call, by message name."""
    found = {}
    for packed in rpc_status.from_call(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                found[kind.DESCRIPTOR.name] = message
    return found


def failure(call, request, code, reason, **options):
    """Makes a call that must fail with this code and this reason of ours, and gives the details."""
    try:
        call(request, timeout=DEADLINE_S, **options)
    except grpc.RpcError as error:
        details = details_of(error)
        info = details["ErrorInfo"]
        assert (error.code(), info.domain, info.reason) == (code, "rationd", reason), (error, info)
        say("  fails as it should", code.name, reason)
        return details
    raise AssertionError(f"{reason} was expected, and the call went well")


def visit(buyer, quantity, request_id):
    line = purchase.Line(request_id=request_id, buyer=buyer, quantity=quantity)
    return purchase.PurchaseRequest(programme=PROGRAMME, lines=[line])


def check_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "rationd.v1.PurchaseService", "rationd.v1.SessionService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, answer)
    say("health", "SERVING")


def check_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert {"rationd.v1.PurchaseService", "rationd.v1.SessionService"} <= services, services
    file = database.FindFileContainingSymbol("rationd.v1.PurchaseService")
    methods = [method.name for service in file.service for method in service.method]
    ours = [method.name for method in purchase.DESCRIPTOR.services_by_name["PurchaseService"].methods]
    assert methods == ours, (methods, ours)
    say("reflection", ", ".join(sorted(services)))


def connect(address, files):
    if not files:
        return grpc.insecure_channel(address)
    authorities, certificate, key = (open(file, "rb").read() for file in files)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authorities, key, certificate))


def main(address, *files):
    with connect(address, files) as channel:
        check_health(channel)
        check_reflection(channel)
        purchases = purchase_service_pb2_grpc.PurchaseServiceStub(channel)
        sessions = session_service_pb2_grpc.SessionServiceStub(channel)

        # Without a site nobody may ask; without a session nobody may sell.
        first = str(uuid.uuid4())
        failure(purchases.Purchase, visit(BUYER, 1, first), grpc.StatusCode.FAILED_PRECONDITION, "SESSION_REQUIRED")
        look = purchase.CheckPurchaseRequest(programme=PROGRAMME, lines=[purchase.Line(buyer=BUYER, quantity=2)])
        if files:
            # The certificate names the site, and no other.
            assert purchases.CheckPurchase(look, timeout=DEADLINE_S).results[0].WhichOneof("outcome") == "may_buy"
            other = (("rationd-site", "11000002"),)
            failure(purchases.CheckPurchase, look, grpc.StatusCode.PERMISSION_DENIED, "SITE_NOT_YOURS", metadata=other)
        else:
            failure(purchases.CheckPurchase, look, grpc.StatusCode.UNAUTHENTICATED, "SITE_REQUIRED")

        events = sessions.OpenSession(session.OpenSessionRequest(terminal="python"), metadata=SITE)
        admitted = next(events).admitted
        assert admitted.session_token and admitted.ledger_id, admitted
        say("session", f"seat {admitted.slot}, lease {admitted.lease.seconds} s, ledger {admitted.ledger_id}")
        seat = (("rationd-session", admitted.session_token),)

        [looked] = purchases.CheckPurchase(look, metadata=SITE, timeout=DEADLINE_S).results
        assert looked.WhichOneof("outcome") == "may_buy" and looked.standing.units_left == 2, looked
        say("look-up", "may buy,", looked.standing.units_left, "left, born", looked.echo.birth_year)

        def sell(buyer, quantity, request_id):
            [result] = purchases.Purchase(visit(buyer, quantity, request_id), metadata=seat, timeout=DEADLINE_S).results
            return result

        sold = sell(BUYER, 2, first)
        receipt = sold.approved.receipt
        assert sold.WhichOneof("outcome") == "approved" and not sold.replayed, sold
        assert (receipt.quantity, receipt.request_id, receipt.ledger_id) == (2, first, admitted.ledger_id), receipt
        assert receipt.durability == purchase.DURABILITY_SYNCED and receipt.simulated_clock, receipt
        say("sale", receipt.quantity, "units at", receipt.site, "on", receipt.sold_at.ToJsonString())

        # What an auditor checks with `rationd receipt verify`: every field, by its name in the interface.
        shown = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        say("receipt", json_format.MessageToJson(receipt, indent=None, **shown))

        again = sell(BUYER, 2, first)
        assert again.replayed and again.approved.receipt == receipt, again
        say("the same id again", "the same receipt")
        failure(
            purchases.Purchase, visit(BUYER, 1, first), grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED", metadata=seat
        )

        refused = sell(BUYER, 1, str(uuid.uuid4()))
        assert refused.WhichOneof("outcome") == "refused", refused
        [reason] = refused.refused.reasons
        assert reason.refusal == purchase.REFUSAL_QUOTA_EXHAUSTED, refused
        assert refused.standing.units_left == 0 and refused.standing.next_chance.date > "2020-06-20", refused
        say("refusal", purchase.Refusal.Name(reason.refusal), "-", reason.why)
        say("  next chance", refused.standing.next_chance.date)

        def name(request_id, kind, buyer=BUYER):
            return kind(programme=PROGRAMME, buyer=buyer, request_id=request_id)

        resolved = purchases.GetPurchase(name(first, purchase.GetPurchaseRequest), metadata=SITE, timeout=DEADLINE_S).result
        assert resolved.approved.receipt == receipt, resolved
        say("resolve", "the same receipt")
        never = str(uuid.uuid4())
        nothing = purchases.GetPurchase(name(never, purchase.GetPurchaseRequest), metadata=SITE, timeout=DEADLINE_S).result
        assert nothing.WhichOneof("outcome") == "not_recorded", nothing
        say("resolve an id never used", "not recorded, and closed")
        failure(
            purchases.Purchase, visit(BUYER, 1, never), grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_CLOSED", metadata=seat
        )

        voided = purchases.VoidPurchase(name(first, purchase.VoidPurchaseRequest), metadata=SITE, timeout=DEADLINE_S).result
        assert voided.voided.voided_by == "11000001", voided
        say("void", "taken back by", voided.voided.voided_by)
        gone = sell(BUYER, 2, first)
        assert gone.WhichOneof("outcome") == "voided" and gone.replayed, gone
        say("the same id after the void", "voided, no receipt")
        assert sell(BUYER, 2, str(uuid.uuid4())).WhichOneof("outcome") == "approved"
        say("a new id after the void", "approved")

        # Many calls over one stream, each with its own answer in whatever order; one that fails harms no other. The token
        # stands in each request, because a stream may speak for many terminals.
        buyers = [purchase.Buyer(resident_number=f"900101-1{serial:05}0") for serial in range(100)]
        asked = [
            purchase.PurchaseStreamRequest(
                call_id=call_id, session_token=admitted.session_token, purchase=visit(buyer, 1, str(uuid.uuid4()))
            )
            for call_id, buyer in enumerate(buyers)
        ]
        asked[50].purchase.lines[0].quantity = 0
        # Without a token the stream's own metadata say who asks.
        asked.append(purchase.PurchaseStreamRequest(call_id=100, get_purchase=name(first, purchase.GetPurchaseRequest)))
        answers = {}
        for answer in purchases.PurchaseStream(iter(asked), metadata=SITE, timeout=DEADLINE_S):
            assert answer.call_id not in answers, answer
            answers[answer.call_id] = answer
        assert sorted(answers) == list(range(101)), answers
        failed = answers.pop(50).failure
        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_REQUEST"), failed
        assert [bad.field for bad in failed.invalid_fields] == ["lines[0].quantity"] and not failed.outcome_unknown, failed
        assert answers.pop(100).results[0].WhichOneof("outcome") == "voided"
        for call_id, answer in answers.items():
            [result] = answer.results
            assert result.approved.receipt.request_id == asked[call_id].purchase.lines[0].request_id, answer
        say("stream", f"{len(answers)} sold,", "1 fails as it should", failed.reason)

        # Bad fields are named by their path, and the number is never repeated.
        def bad_fields(request):
            details = failure(purchases.Purchase, request, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", metadata=seat)
            assert "1000112" not in str(details), details
            for violation in details["BadRequest"].field_violations:
                say(f"    {violation.field}", violation.description)
            return {violation.field for violation in details["BadRequest"].field_violations}

        assert bad_fields(visit(BUYER, 1, "no uuid")) == {"lines[0].request_id"}
        no_such_day = purchase.Buyer(resident_number="811332-1000112")
        fields = bad_fields(visit(no_such_day, 0, str(uuid.uuid4())))
        assert fields == {"lines[0].buyer.resident_number", "lines[0].quantity"}, fields

        full = next(sessions.OpenSession(session.OpenSessionRequest(terminal="second"), metadata=SITE)).site_full
        assert (full.cap, [holder.terminal for holder in full.holders]) == (1, ["python"]), full
        say("a second terminal", f"site is full (cap {full.cap}), held by", full.holders[0].terminal)

        closed = sessions.CloseSession(session.CloseSessionRequest(session_token=admitted.session_token), timeout=DEADLINE_S)
        assert closed.closed, closed
        assert next(events).ended.why == session.SESSION_END_LOST
        failure(
            purchases.Purchase, visit(OTHER, 1, str(uuid.uuid4())), grpc.StatusCode.FAILED_PRECONDITION, "SESSION_LOST", metadata=seat
        )
        say("session", "closed, and its token sells no more")
    print("all as promised")


if __name__ == "__main__":
    main(*sys.argv[1:])
