//! Buyers (contract only; the module is written elsewhere).

/// Stand-in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pseudonym([u8; 16]);
impl Pseudonym {
    /// From its bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
/// Stand-in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BuyerKey {
    /// Partition.
    pub partition: u8,
    /// Pseudonym.
    pub pseudonym: Pseudonym,
}
