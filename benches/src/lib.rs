//! L2 of Pontoon
