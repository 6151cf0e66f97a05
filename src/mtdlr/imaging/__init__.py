"""Images: from scanner files to volumes on one grid, in SUV and HU."""
