//! How messages get on and off the wire: protobuf, in buffers that fit this service's messages.
//!
//! tonic sets 8 KiB aside for each direction of every call, and an open stream keeps them for its life. A message of this
//! service has a few hundred bytes; a longer one, or many at once on a stream, make a buffer grow.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Room for what a call brings. It is given back when the call has been read.
const READ: usize = 512;
/// Room for what begins a session, which keeps it, and for most answers.
const WRITTEN: usize = 256;
/// How much a stream that has more to say gathers before it is sent; tonic's own default.
const YIELD: usize = 32 * 1024;

/// tonic's own codec but for its buffers. The generated clients and servers name it.
pub(super) struct SmallBuffers<Out, In>(PhantomData<(Out, In)>);

impl<Out, In> Default for SmallBuffers<Out, In> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Out: Message + 'static, In: Message + Default + 'static> Codec for SmallBuffers<Out, In> {
    type Encode = Out;
    type Decode = In;
    type Encoder = ProstEncoder<Out>;
    type Decoder = ProstDecoder<In>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Out, In>::raw_encoder(BufferSettings::new(WRITTEN, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Out, In>::raw_decoder(BufferSettings::new(READ, YIELD))
    }
}
