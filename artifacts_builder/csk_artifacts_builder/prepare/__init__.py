"""From an exporter's file to the graph that the method works on."""
