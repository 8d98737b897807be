"""Kubernetes manifests of Ray jobs: rendered and checked without a cluster; and what a pod does before it goes."""
