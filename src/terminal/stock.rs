//! The client of those who look at stock, for the feed's listener.

use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::operator::within_patience;
use super::{CallError, Connection, Unread, traced};
use crate::grpc::v1::{self, stock_service_client::StockServiceClient};

/// Somebody who looks at stock, connected to the feed's listener.
#[derive(Clone)]
pub struct Stock {
    channel: Channel,
}

impl Stock {
    /// On a connection to the feed's listener.
    pub fn on(connection: &Connection) -> Self {
        Self { channel: connection.channel() }
    }

    /// The stock of one site.
    pub async fn get(&self, of: v1::GetStockRequest) -> Result<v1::GetStockResponse, CallError> {
        let call = |request| async move { self.client().get_stock(request).await };
        traced("rationd.v1.StockService/GetStock", Request::new(of), call).await
    }

    /// A page of the stocks of an area.
    pub async fn list(&self, of: v1::ListStockRequest) -> Result<v1::ListStockResponse, CallError> {
        let call = |request| async move { self.client().list_stock(request).await };
        traced("rationd.v1.StockService/ListStock", Request::new(of), call).await
    }

    /// Every change, from where is asked for.
    pub async fn watch(&self, from: v1::WatchStockRequest) -> Result<Watch, Unread> {
        Ok(Watch(self.client().watch_stock(from).await?.into_inner()))
    }

    fn client(&self) -> StockServiceClient<Channel> {
        StockServiceClient::new(self.channel.clone())
    }
}

/// Changes as they come.
pub struct Watch(Streaming<v1::WatchStockResponse>);

impl Watch {
    /// The next of them; `None`: the service has ended it. Fails also if nothing comes for 30 seconds: it says every five that it is
    /// there.
    pub async fn next(&mut self) -> Result<Option<v1::WatchStockResponse>, Unread> {
        within_patience(self.0.message()).await
    }
}
