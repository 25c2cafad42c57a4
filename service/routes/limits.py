"""`GET /v1/limits`: what a request may hold, for machines to read before they send."""

from typing import get_args

from fastapi import APIRouter, Request

from models.containers import accepted_formats
from models.limits import MAX_AMPLITUDE
from service.context import Shared
from service.engine import MIN_DURATION_S
from service.formats import json_body, open_inference, openai_embeddings
from service.formats.job_requests import MAX_UPLOADS
from service.inference.windowing import MAX_OVERLAP
from service.output_names import OUTPUTS
from service.parameters import MAX_CLASSIFIERS, MAX_TOP_K, FunctionToApply, Granularity
from service.reports import LimitList
from service.traffic.access import needs_key
from service.uploads.body import FORM, MAX_FIELD_BYTES, MAX_FIELDS, RAW_PREFIX, RAW_TYPES

router = APIRouter(tags=["limits"])


@router.get("/v1/limits", summary="List the limits")
@needs_key()
async def list_limits(request: Request, shared: Shared) -> LimitList:
    """Every limit by the name that its refusal and its setting have."""
    settings, audio = shared.settings, shared.engine.decoder.limits
    return LimitList(
        max_body_bytes=settings.max_body_bytes,
        max_files=settings.max_files,
        max_form_fields=MAX_FIELDS,
        max_form_field_bytes=MAX_FIELD_BYTES,
        max_json_nested=json_body.MAX_NESTED,
        max_json_values=openai_embeddings.MAX_VALUES,
        max_infer_json_values=open_inference.MAX_VALUES,
        max_inflight=settings.max_inflight,
        max_connections=settings.max_connections,
        body_timeout_s=settings.body_timeout_s,
        decode_cpu_s=settings.decode_cpu_s,
        decode_wall_s=settings.decode_wall_s,
        decode_memory_bytes=settings.decode_memory_bytes,
        body_grace_s=settings.body_grace_s,
        min_body_bytes_per_s=settings.min_body_bytes_per_s,
        audio_seconds_per_minute=request.state.caller.audio_seconds_per_minute,
        max_inflight_per_key=request.app.state.gate.callers.limit(request.state.caller),
        request_timeout_s=settings.request_timeout_s,
        max_queue_s=settings.queue_s,
        max_streams=settings.max_streams,
        max_live_streams=settings.max_live_streams,
        head_timeout_s=settings.head_timeout_s,
        max_stream_duration_s=settings.max_stream_duration_s,
        max_stream_body_bytes=settings.max_stream_body_bytes,
        idle_timeout_s=settings.idle_timeout_s,
        memory_bytes=settings.memory_bytes,
        min_answer_bytes_per_s=settings.min_answer_bytes_per_s,
        max_decoded_bytes=settings.max_decoded_bytes,
        min_duration_s=MIN_DURATION_S,
        max_duration_s=settings.max_duration_s,
        max_request_duration_s=settings.request_duration_s,
        min_sample_rate=audio.min_sample_rate,
        max_sample_rate=audio.max_sample_rate,
        max_channels=audio.max_channels,
        max_amplitude=MAX_AMPLITUDE,
        max_windows=settings.max_windows,
        max_overlap=MAX_OVERLAP,
        formats=accepted_formats(),
        media_types=[FORM, f"{RAW_PREFIX}*", *RAW_TYPES],
        outputs=list(OUTPUTS),
        granularities=list(get_args(Granularity)),
        functions_to_apply=list(get_args(FunctionToApply)),
        max_collections=settings.max_collections,
        max_collection_items=settings.max_collection_items,
        max_collection_bytes=settings.max_collection_bytes,
        max_kept_days=settings.max_kept_days,
        max_classifiers=MAX_CLASSIFIERS,
        max_jobs=settings.max_jobs,
        max_job_uploads=MAX_UPLOADS,
        max_job_bytes=settings.max_job_bytes,
        job_kept_hours=settings.job_kept_hours,
        upload_kept_hours=settings.upload_kept_hours,
        max_fits=settings.max_fits,
        fit_timeout_s=settings.fit_timeout_s,
        fit_memory_bytes=settings.fit_memory_bytes,
        max_top_k=MAX_TOP_K,
    )
