//! The least that a call can cost: the same messages over the same server settings, answered without a thought.

use std::io::Read;
use std::pin::Pin;

use prost::Message;
use rationd::grpc::v1::purchase_service_server::{PurchaseService, PurchaseServiceServer};
use rationd::grpc::{self, v1};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::Failure;

/// Serves on a free port of loopback, which it prints, until standard input ends: with the process that started it.
pub async fn serve(answer: Vec<u8>) -> Result<(), Failure> {
    let answer = v1::PurchaseResponse::decode(answer.as_slice())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("echo listens on {}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let parent_is_gone = stop.clone().drop_guard();
    tokio::task::spawn_blocking(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(parent_is_gone);
    });
    grpc::serve_bare(listener, Routes::new(PurchaseServiceServer::new(Echo { answer })), stop).await;
    Ok(())
}

/// Answers every purchase with what a purchase was answered with once.
struct Echo {
    answer: v1::PurchaseResponse,
}

fn only_purchase<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the echo knows Purchase alone"))
}

#[tonic::async_trait]
impl PurchaseService for Echo {
    type PurchaseStreamStream = Pin<Box<dyn Stream<Item = Result<v1::PurchaseStreamResponse, Status>> + Send>>;

    async fn purchase(&self, _: Request<v1::PurchaseRequest>) -> Result<Response<v1::PurchaseResponse>, Status> {
        Ok(Response::new(self.answer.clone()))
    }

    async fn check_purchase(
        &self,
        _: Request<v1::CheckPurchaseRequest>,
    ) -> Result<Response<v1::CheckPurchaseResponse>, Status> {
        only_purchase()
    }

    async fn hold_purchase(
        &self,
        _: Request<v1::HoldPurchaseRequest>,
    ) -> Result<Response<v1::HoldPurchaseResponse>, Status> {
        only_purchase()
    }

    async fn confirm_hold(
        &self,
        _: Request<v1::ConfirmHoldRequest>,
    ) -> Result<Response<v1::ConfirmHoldResponse>, Status> {
        only_purchase()
    }

    async fn release_hold(
        &self,
        _: Request<v1::ReleaseHoldRequest>,
    ) -> Result<Response<v1::ReleaseHoldResponse>, Status> {
        only_purchase()
    }

    async fn void_purchase(
        &self,
        _: Request<v1::VoidPurchaseRequest>,
    ) -> Result<Response<v1::VoidPurchaseResponse>, Status> {
        only_purchase()
    }

    async fn get_purchase(
        &self,
        _: Request<v1::GetPurchaseRequest>,
    ) -> Result<Response<v1::GetPurchaseResponse>, Status> {
        only_purchase()
    }

    async fn purchase_stream(
        &self,
        _: Request<Streaming<v1::PurchaseStreamRequest>>,
    ) -> Result<Response<Self::PurchaseStreamStream>, Status> {
        only_purchase()
    }
}
