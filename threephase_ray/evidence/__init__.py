"""What runs of several seeds show: means with intervals, arms compared, calibration, clusters."""
