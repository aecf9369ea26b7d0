"""What requests and answers look like, for the checks of requests and for the API's description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BODY", "EXAMPLE", "Answer", "Answers", "Health", "Images", "Problem"]

EXAMPLE = (  # one red pixel, as PNG
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
GUARANTEE = "at most 5.00% of known images are flagged, on average (1,000 held-out images)"
SHIRT: dict[str, Any] = {
    "file": "shirt.png",
    "answer": "shirt",
    "flagged": False,
    "score": -7.1,
    "threshold": -2.3,
    "likeliest": "shirt",
    "p_value": 0.64,
    "candidates": ["shirt", "pullover"],
    "top": [["shirt", 0.91], ["pullover", 0.07], ["coat", 0.02]],
}
CAT: dict[str, Any] = {
    "file": "cat.jpg",
    "answer": "unknown",
    "flagged": True,
    "score": 1.4,
    "threshold": -2.3,
    "likeliest": "pullover",
    "p_value": 0.001,
    "candidates": ["pullover"],
    "top": [["pullover", 0.52], ["shirt", 0.31], ["coat", 0.17]],
}


class Images(BaseModel):
    """Pictures in JSON."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"images": [EXAMPLE]}]})

    images: list[str] = Field(description="image files, each in base64 or a data URL of it")


class Answer(BaseModel):
    """What the guard says of one picture."""

    file: str | None = Field(None, description="the file's name, where the request had one")
    answer: str = Field(description='the class, or "unknown" where the picture is flagged')
    flagged: bool = Field(description="whether the score exceeds the threshold")
    score: float | None = Field(description="higher for pictures that are less like known ones")
    threshold: float = Field(description="above it a picture is flagged")
    likeliest: str = Field(description="the likeliest class, whether flagged or not")
    known: float | None = Field(
        None, description="the network's probability that the picture is of a known kind"
    )
    p_value: float | None = Field(
        None, description="how often a known picture has as high a score, or a higher"
    )
    candidates: list[str] | None = Field(
        None, description="where asked for: the classes that it may be of, if it is a known picture"
    )
    top: list[tuple[str, float]] = Field(
        description="the five likeliest classes, with the network's probabilities for them"
    )


class Answers(BaseModel):
    """What the guard says of a request's pictures, in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "predictions": [SHIRT, CAT],
                    "guarantee": GUARANTEE,
                }
            ]
        }
    )

    predictions: list[Answer]
    guarantee: str = Field(description="what the threshold guarantees")


class Health(BaseModel):
    """Whether the server takes requests."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str = Field(description='"ok", or "stopping"')


class Problem(BaseModel):
    """Why a request was refused."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"detail": "Picture 2 (notes.txt) cannot be read: …"}]}
    )

    detail: str


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Image files: a form of them, their base64 in JSON, or a single one as it is.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {"schema": Images.model_json_schema()},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""The body of a request to /predict, as OpenAPI describes it."""
