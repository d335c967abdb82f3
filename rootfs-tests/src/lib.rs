//! Parts that the root suites share: real daemons, bundles, censuses.
