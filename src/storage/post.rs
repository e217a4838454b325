//! One question to a server that is no storage, by the same client as everything else.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Limited};
use object_store::client::HttpRequestBody;

use super::error::{StorageError, of_http};
use super::http::{Connector, Reach};
use super::{Now, Settings};

/// Sends `body` to `url` and reads an answer of `limit` bytes at most. One try.
///
/// # Errors
/// [`StorageError`]; `operation` names the question in it.
pub async fn post(
    operation: &'static str,
    url: &str,
    content_type: &'static str,
    body: Bytes,
    limit: usize,
    now: Now,
) -> Result<Bytes, StorageError> {
    let unusable = || StorageError::Settings { what: format!("{url} is no url"), source: None };
    let uri: Uri = url.parse().map_err(|_| unusable())?;
    let endpoint = uri.authority().ok_or_else(unusable)?.to_string();
    let plain = uri.scheme_str() == Some("http");
    let settings = Settings::default();
    let host = uri.host().unwrap_or_default().to_owned();
    let client = Connector::new(&settings, &host, "", now)?.client(settings.tuning.connect_timeout, Reach::Storage { plain })?;
    let mut request = Request::new(HttpRequestBody::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    let answer = client.execute(request).await.map_err(|e| of_http(operation, &endpoint, &e).error)?;
    match Limited::new(answer.into_body(), limit).collect().await {
        Ok(answer) => Ok(answer.to_bytes()),
        Err(_) => Err(StorageError::BadAnswer { operation, why: "it is too long, or broke off".to_owned() }),
    }
}
