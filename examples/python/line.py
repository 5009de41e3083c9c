"""The line from a counter to the service: its session, and calls that are made again where that helps."""

import random
import threading
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rationd.v1 import session_service_pb2 as session
from rationd.v1 import session_service_pb2_grpc

PROGRAMME, TERMINAL = "weekly-essentials", "python-1"
# A clerk has a queue: how long one attempt may take, and all of them.
ATTEMPT_S, PATIENCE_S = 3, 8
# The reasons that the interface lists as not executed (purchase_service.proto). Only these say that an attempt wrote nothing; after
# every other failure, one with a reason that is not here among them, nobody can say.
NOT_EXECUTED = set("""
    INVALID_REQUEST MESSAGE_TOO_LARGE MESSAGE_MALFORMED METHOD_UNKNOWN COMPRESSION_UNKNOWN CERTIFICATE_REQUIRED CERTIFICATE_UNCLEAR
    CERTIFICATE_NOT_BELIEVED SITE_REQUIRED SITE_UNKNOWN SESSION_INVALID SITE_NOT_YOURS TERMINAL_NOT_YOURS NOT_A_SITE
    SESSION_NOT_YOURS SESSION_REQUIRED SESSION_REPLACED SESSION_LOST REQUEST_ID_REUSED REQUEST_ID_CLOSED OTHER_LEDGER OVERLOADED
    BUYER_RECORD_FULL LOOK_UPS_WITHOUT_SALES STORE_UNAVAILABLE REPLICAS_MISSING CLOCKS_APART SESSION_UNCONFIRMED DEADLINE_PASSED
""".split())


def say(what, *details):
    # Never a buyer's number: what is printed ends up in logs. The service's answers name it masked.
    print(" ".join([f"{what:<12}", *map(str, details)]).rstrip(), flush=True)


def told(error):
    """Of a failed call: our reason ("": none of ours), and in how many seconds the service wants to hear from us again."""
    reason, after, status = "", None, rpc_status.from_call(error)
    for packed in status.details if status else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if packed.Unpack(info) and info.domain == "rationd":
            reason = info.reason
        elif packed.Unpack(retry):
            after = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, after


class Failed(Exception):
    """A call gave no decision. `unknown`: it may have been recorded all the same."""

    def __init__(self, why, unknown):
        super().__init__(why)
        self.unknown = unknown


class Session(threading.Thread):
    """Holds this terminal's place in the line, and then its seat, while the program runs; goes on when a stream ends."""

    def __init__(self, channel, site, facts):
        super().__init__(daemon=True)
        self.stub, self.site, self.facts = session_service_pb2_grpc.SessionServiceStub(channel), site, facts
        # While the service does not answer, nobody waits for it. The token is what this terminal sells with, once it is let in.
        self.reached, self.stream = False, None
        self.token = self.ledger_id = self.place = ""

    def run(self):
        failures = 0
        while True:
            at_least = 0
            try:
                request = session.OpenSessionRequest(terminal=TERMINAL, place_token=self.place)
                self.stream = self.stub.OpenSession(request, metadata=self.site)
                for event in self.stream:
                    failures, self.reached = 0, True
                    at_least = self.hear(event)
            except grpc.RpcError as error:
                reason, after = told(error)
                if reason.startswith("PLACE_"):
                    self.place = ""  # It is lost: stand in line anew.
                elif reason in NOT_EXECUTED and after is None:
                    say("no session", reason)  # Not for a program to mend. A real POS calls somebody, and asks rarely.
                    at_least = 30
                at_least = after or at_least
            # The seat is kept for the lease time. All lost their streams together and must not come back together: within 8 s, drawn
            # at random, and later within up to 30.
            time.sleep(max(at_least, random.uniform(0, min(30, 8 * 2**failures))))
            failures += 1

    def hear(self, event):
        """One event; and if it is the stream's last, in how many seconds it makes sense to come back, at the soonest."""
        kind = event.WhichOneof("event")
        if kind == "waiting":
            # The token keeps the place when the stream breaks. It lets nobody in: the service says when.
            self.token, self.place = "", event.waiting.place_token
            say("in line", f"rank {event.waiting.rank}, position {event.waiting.position}")
        elif kind == "admitted":
            seat = event.admitted
            # What is done when nobody can be asked must be known then.
            modes = {policy.programme: session.OfflineMode.Name(policy.mode).removeprefix("OFFLINE_MODE_") for policy in seat.offline}
            self.facts.write(offline=modes)
            self.token, self.ledger_id, self.place = seat.session_token, seat.ledger_id, ""
            say("session", f"seat {seat.slot}; offline: {modes.get(PROGRAMME)}")
        else:
            # Two that replace each other in turns help nobody; whoever finds the site full need not hurry.
            say("no session", session.SessionEnd.Name(event.ended.why) if kind == "ended" else kind)
            return event.shut.retry_after.seconds if kind == "shut" else 0 if event.ended.why == session.SESSION_END_DRAINING else 10
        return 0

    def is_away(self):
        """Nobody answers, until a new stream does."""
        self.reached, self.token = False, ""
        self.stream.cancel()

    def wait(self):
        while not self.token:
            time.sleep(0.1)


class Calls:
    """Calls of a terminal, repeated where that helps."""

    def __init__(self, session, site):
        self.session, self.site, self.calls, self.repeats = session, site, [], []

    def insist(self, method, request, seat=False):
        """Makes a call and, where that helps, makes it again AS IT STANDS, request id included."""
        give_up, unknown = time.monotonic() + PATIENCE_S, ""
        self.calls.append(time.monotonic())
        while True:
            try:
                who = (("rationd-session", self.session.token),) if seat else self.site
                return method(request, metadata=who, timeout=min(ATTEMPT_S, max(0.1, give_up - time.monotonic())))
            except grpc.RpcError as error:
                reason, after = told(error)
                if reason not in NOT_EXECUTED:
                    unknown, after = unknown or reason or error.code().name, 0.5
                elif reason in ("SESSION_INVALID", "SESSION_LOST"):
                    after = 1  # The session's thread hears of it too, and opens another.
            # Never sooner than asked, and not all at once.
            pause = after and after * (1 + random.random())
            if pause is None or time.monotonic() + pause > give_up or not self.may_repeat():
                # That the last attempt wrote nothing says nothing of an earlier one.
                raise Failed(unknown or reason, bool(unknown))
            say("no answer", f"{unknown or reason}; again, with the same request id")
            time.sleep(pause)

    def may_repeat(self):
        """One repeat for every ten calls of the last ten seconds, and one for fewer: a service in trouble is not buried by us."""
        self.calls, self.repeats = ([at for at in made if at > time.monotonic() - 10] for made in (self.calls, self.repeats))
        if may := len(self.repeats) < max(1, len(self.calls) // 10):
            self.repeats.append(time.monotonic())
        return may


def connect(address, files):
    # A service that vanished without a word is known by its silence; it is dialled again after seconds, not minutes.
    options = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 5_000), ("grpc.max_reconnect_backoff_ms", 5_000)]
    if not files:
        return grpc.insecure_channel(address, options)  # On loopback only. Elsewhere the certificate says which site this is.
    authorities, certificate, key = (open(file, "rb").read() for file in files)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authorities, key, certificate), options)
