"""Entries of a Triton model repository for the vLLM and TensorRT-LLM backends, made from options.

`options` says what can be asked for and refuses what contradicts itself, `engines` has the engines' own arguments,
`rendering` makes the files, `gateway_section` what gateway.yaml says of them, `repository` puts files in place. Must
not know: the request path, nor the command line.
"""
