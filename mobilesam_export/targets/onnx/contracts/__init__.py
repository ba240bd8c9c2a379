"""The files in the form that other people's tools take, as thin graphs before and behind ours."""
