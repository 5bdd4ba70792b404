"""AUTOMATIC1111's API, `/sdapi/v1`, for the clients that speak it. Formats only: jobs run in the studio's own queue."""

from fastapi import APIRouter

from studio.api.a1111 import control, img2img, lists, options, txt2img

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"])
for part in (txt2img, img2img, control, options, lists):
    router.include_router(part.router)
