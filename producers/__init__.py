"""What pushes a clickstream in: data set readers, a synthetic shop, and the pusher that feeds a transport."""
