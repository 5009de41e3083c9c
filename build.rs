//! Generates the gRPC types from `proto/` in pure Rust: a fresh machine needs no protoc.

use std::path::PathBuf;
use std::{env, fs};

const FILES: [&str; 5] = [
    "rationd/v1/journal_service.proto",
    "rationd/v1/operator_service.proto",
    "rationd/v1/purchase_service.proto",
    "rationd/v1/session_service.proto",
    "rationd/v1/stock_service.proto",
];

/// Messages that can carry a buyer's number, and those that contain one: they get no `Debug`, so that nobody can print them.
const WITHOUT_DEBUG: [&str; 15] = [
    ".rationd.v1.Buyer",
    ".rationd.v1.OpaqueBuyer",
    ".rationd.v1.Line",
    ".rationd.v1.CheckPurchaseRequest",
    ".rationd.v1.PurchaseRequest",
    ".rationd.v1.HoldPurchaseRequest",
    ".rationd.v1.ConfirmHoldRequest",
    ".rationd.v1.ReleaseHoldRequest",
    ".rationd.v1.VoidPurchaseRequest",
    ".rationd.v1.GetPurchaseRequest",
    ".rationd.v1.PurchaseStreamRequest",
    ".rationd.v1.LookUpBuyerRequest",
    ".rationd.v1.VoidForBuyerRequest",
    ".rationd.v1.UploadSalesRequest",
    ".rationd.v1.OfflineSale",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_transport(true)
        .codec_path("crate::grpc::codec::SmallBuffers")
        .skip_debug(WITHOUT_DEBUG)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
