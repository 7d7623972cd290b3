"""On-demand feature views: their source checked, made part of a plan, and tried before they are deployed."""
