"""The arithmetic of services: promises along a path, shares of a stock by class, quotas, marks and sizes."""
