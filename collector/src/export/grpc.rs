//! OTLP over gRPC.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};

use super::Delivery;
use crate::config::Export;
use crate::files;

/// A receiver.
pub struct Sink {
    channel: Channel,
    headers: MetadataMap,
}

impl Sink {
    /// Prepares the channel; it connects when it is first used.
    pub fn new(config: &Export) -> anyhow::Result<Self> {
        let timeout = Duration::from_secs(config.timeout_seconds);
        let mut endpoint = Endpoint::from_shared(config.endpoint.clone())
            .with_context(|| format!("endpoint {:?}", config.endpoint))?
            .timeout(timeout)
            .connect_timeout(timeout);
        if config.endpoint.starts_with("https://") {
            let tls = match &config.ca_file {
                Some(file) => {
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(files::read(file)?))
                }
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls).context("TLS for the receiver")?;
        }
        let mut headers = MetadataMap::new();
        for (name, value) in &config.headers {
            let key: AsciiMetadataKey =
                name.to_ascii_lowercase().parse().with_context(|| format!("header {name:?}"))?;
            let mut value: AsciiMetadataValue =
                value.parse().with_context(|| format!("the value of header {name:?}"))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(Self { channel: endpoint.connect_lazy(), headers })
    }

    /// Sends one request.
    pub async fn send(&self, request: ExportLogsServiceRequest) -> Delivery {
        let mut request = Request::new(request);
        *request.metadata_mut() = self.headers.clone();
        match LogsServiceClient::new(self.channel.clone()).export(request).await {
            Ok(response) => Delivery::of(response.get_ref()),
            // Everything else may pass once the receiver, or its configuration, is well again.
            Err(status) if status.code() == Code::InvalidArgument => {
                Delivery::Rejected(status.message().to_owned())
            }
            Err(status) => {
                Delivery::Retry(format!("{:?}: {}", status.code(), status.message()), None)
            }
        }
    }
}
