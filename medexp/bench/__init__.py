"""`medexp bench`: medexp's own training beside the peers, interleaved, each in its own process."""
