"""What pushes clickstream in: synthetic shoppers and dataset readers."""
