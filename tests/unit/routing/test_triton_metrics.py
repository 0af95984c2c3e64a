"""What is read of a metrics page, and that nothing on one can do harm."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from extproc.routing.triton_metrics import ModelLoad, parse

TRITON = """\
# HELP nv_inference_exec_count Number of model executions performed
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="llm",version="1"} 123456
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="llm",version="1"} 3
nv_inference_pending_request_count{model="llm",version="2"} 2
nv_inference_pending_request_count{model="other",version="1"} 0
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
nv_gpu_utilization{gpu_uuid="GPU-2"} 1
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 8e9
nv_gpu_memory_total_bytes{gpu_uuid="GPU-2"} 8e9
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 4e9
nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} 0
"""


def test_a_page_of_triton() -> None:
    load = parse(TRITON)
    assert load.models == {"llm": ModelLoad(queued=5), "other": ModelLoad(queued=0)}
    assert (load.gpu, load.gpu_memory) == (0.75, 0.25)


def test_a_backend_with_a_queue_of_its_own_adds_to_tritons() -> None:
    own = 'demo_llm_queue_depth{model="llm",version="1"} 4\ndemo_llm_running{model="llm",version="1"} 32\n'
    own += 'demo_llm_kv_cache_utilization{model="llm",version="1"} 0.75\n'
    assert parse(TRITON + own).models["llm"] == ModelLoad(9, 32, 0.75)


def test_vllm_and_tensorrt_llm() -> None:
    vllm = 'vllm:num_requests_waiting{engine="0",model_name="a/b"} 7.0 1395066363000\n'
    vllm += 'vllm:kv_cache_usage_perc{engine="0",model_name="a/b"} 0.5\n'
    assert parse(vllm).models == {"a/b": ModelLoad(7, None, 0.5)}
    trt = 'nv_trt_llm_request_metrics{model="t",request_type="waiting",version="1"} 2\n'
    trt += 'nv_trt_llm_request_metrics{model="t",request_type="max",version="1"} 512\n'
    trt += 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="t",version="1"} 0.25\n'
    trt += 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="t",version="1"} 900\n'
    assert parse(trt).models == {"t": ModelLoad(2, None, 0.25)}


def test_what_is_not_a_load_is_left_out() -> None:
    page = """\
nv_inference_pending_request_count_bucket{model="a"} 1
nv_inference_pending_request_count{model="b"} NaN
nv_inference_pending_request_count{model="c"} -1
nv_inference_pending_request_count{model="d"} many
nv_inference_pending_request_count{version="1"} 5
 # nv_gpu_utilization 1
nv_inference_pending_request_count{model="say \\"hi\\", {you}",version="1"} 6
"""
    load = parse(page)
    assert load.models == {'say "hi", {you}': ModelLoad(6)}
    assert load.gpu is None
    assert load.gpu_memory is None


@given(st.text() | st.text('nv_gputilzao{}="\\ \n.0123456789').map(lambda text: f"nv_gpu_utilization{text}"))
def test_any_page_is_read_somehow(page: str) -> None:
    parse(page)
