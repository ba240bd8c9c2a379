"""MobileSAM for phones: export, verification and the predictor over exported artifacts."""
