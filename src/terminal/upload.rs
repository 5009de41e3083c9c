//! Takes sales that were made offline to the service.

use std::time::Duration;

use tonic::Streaming;

use super::{CallError, Terminal, traced};
use crate::grpc::v1::{self, journal_service_client::JournalServiceClient};

/// How long the next verdict may be late: uploads are the lowest class of work.
const VERDICT_WITHIN: Duration = Duration::from_secs(60);

impl Terminal {
    /// Uploads sales, as fast as the service takes them. Each gets a verdict, whose `call_id` is the sale's place among these; one
    /// without is uploaded again later, as it stands.
    pub async fn upload(&self, sales: Vec<v1::OfflineSale>) -> Result<Verdicts, CallError> {
        let sales = (0_u64..).zip(sales).map(|(call_id, sale)| v1::UploadSalesRequest { call_id, sale: Some(sale) });
        let stream = self.request(tokio_stream::iter(sales.collect::<Vec<_>>()))?;
        let mut client = JournalServiceClient::new(self.channel.clone());
        let call = |request| async move { client.upload_sales(request).await };
        traced("rationd.v1.JournalService/UploadSales", stream, call).await.map(Verdicts)
    }
}

/// Verdicts as they come, in any order.
pub struct Verdicts(Streaming<v1::UploadSalesResponse>);

impl Verdicts {
    /// The next of them; `None`: there are no more. Fails also if none comes for a minute.
    pub async fn next(&mut self) -> Result<Option<v1::UploadSalesResponse>, CallError> {
        let silence = |_| CallError::Unknown("the service is silent".into());
        Ok(tokio::time::timeout(VERDICT_WITHIN, self.0.message()).await.map_err(silence)??)
    }
}
