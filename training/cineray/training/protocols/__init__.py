"""Complete experiments on plain arrays, independent of shards, models and Ray: the yardsticks of the results pages."""
