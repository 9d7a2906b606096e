"""Who runs: the service, one nursery for each venue, the writer."""
