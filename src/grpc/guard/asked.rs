//! The message of a call. It is there soon after the call's headers: until it is whole the call takes a place that others want, and
//! nothing is done for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::grpc::status;

/// What a client says in a call.
pub(in crate::grpc) struct Asked<B> {
    body: B,
    /// It is one message, which must come so soon.
    within: Option<Duration>,
    /// There while some of it is missing.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Asked<B> {
    pub(in crate::grpc) fn new(body: B, within: Option<Duration>) -> Self {
        Self { body, within, late: None }
    }
}

impl<B: Body + Unpin> Body for Asked<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let asked = self.get_mut();
        let frame = Pin::new(&mut asked.body).poll_frame(context);
        let (Poll::Pending, Some(within)) = (&frame, asked.within) else {
            return frame.map_err(|error| Status::from_error(error.into()));
        };
        let late = asked.late.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Some(Err(status::message_missing().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
