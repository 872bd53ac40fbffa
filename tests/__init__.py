"""Tests: one folder for each floor, one file for each stage; what several need is in support/."""
